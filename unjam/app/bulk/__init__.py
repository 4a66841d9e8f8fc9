"""``unjam bulk``: many texts or files at once, by workers of a lane of their own."""
