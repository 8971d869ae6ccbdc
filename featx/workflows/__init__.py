"""What needs several rooms: fitting from a store, predicting and searching from image files, exporting."""
