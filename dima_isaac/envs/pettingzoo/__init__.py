"""Any PettingZoo ``ParallelEnv`` as a task: environments in worker processes, their numbers in shared memory."""
