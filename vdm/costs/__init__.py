"""What a program costs: its FLOPs and bytes, what the compiler makes of them, and what that means on a chip."""
