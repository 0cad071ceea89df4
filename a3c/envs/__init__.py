"""What is stepped: environments, what they look like in memory, and what is refused of them."""
