"""Files of other people, read without trusting a word of them: every size is checked before anything is made of it."""
