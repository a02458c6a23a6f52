"""The project's own facts and cases, and the script that builds them."""
