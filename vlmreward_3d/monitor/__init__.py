"""What looks at a run while it goes on: TensorBoard, the browser and the watchdog."""
