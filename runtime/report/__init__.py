"""What was measured, as JSON with a schema, and two views of it: one HTML page and one terminal table."""
