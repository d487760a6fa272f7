"""What runs leave behind: their identity and record, and the report that compares several of them."""
