"""What other engines do with the bench's work: extras of the bench alone."""
