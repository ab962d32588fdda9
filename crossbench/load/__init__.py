"""What drives the server: data sets, and the driver that turns them into RequestRecords."""
