"""What a plan says of itself: report, picture, progress; versions in use."""
