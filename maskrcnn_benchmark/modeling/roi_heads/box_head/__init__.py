"""Box head: classes and refined boxes of the proposals."""
