"""One file per image source: folders, manifests, Parquet, arrays, CIFAR, ImageNet."""
