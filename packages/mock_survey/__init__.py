"""What would the sky look like if we knew the truth? A simulated survey, written as the real
archive is."""
