"""Pictures of ground truth and detections."""
