//! Worker processes: how they come into being, what they are told, and what happens when they die.
