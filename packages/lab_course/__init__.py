"""For courses: checks of a student's numbers, which name the typical mistake behind a wrong one."""
