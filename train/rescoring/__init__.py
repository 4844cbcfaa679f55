"""Re-scoring of detections by image encoders, PCB and CM-CLIP, behind `irforge.rescoring.Rescorer`."""
