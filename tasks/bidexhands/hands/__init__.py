"""What the two-handed tasks share: hands, objects, starts and the published assets."""
