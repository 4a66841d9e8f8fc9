"""What watches, repairs and reports."""
