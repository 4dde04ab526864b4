"""Class facts, confusions, and refinement of class descriptions."""
