"""What a running study shows: the live table, its pace, and the live file for other processes."""
