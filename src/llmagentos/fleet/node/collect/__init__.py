"""What a node measures and reads on its machine, kept on disk until the server has it."""
