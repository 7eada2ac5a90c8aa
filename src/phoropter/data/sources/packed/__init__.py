"""Files that hold many pictures each (Parquet, Arrow, tar, HDF5), one shard beside another: one reader of their columns."""
