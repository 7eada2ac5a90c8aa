"""Many runs: a Study becomes a plan, a plan becomes run folders. Only `run` loads torch."""
