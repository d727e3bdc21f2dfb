"""The command line: from the words typed to a run or a tool."""
