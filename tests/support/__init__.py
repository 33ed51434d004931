"""What tests share: commands run as a user runs them, servers that misbehave, repositories in memory."""
