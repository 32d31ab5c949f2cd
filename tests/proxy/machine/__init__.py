"""A machine that plays clients and backends against one worker's data path, and judges what it sees."""
