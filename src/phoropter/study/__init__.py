"""Many runs: a study becomes a plan, a plan becomes run folders."""
