package main

import (
	"os"
	"path/filepath"
	"testing"
)

// The faults are of the code as it is: each finds the text that it replaces.
func TestFaultsFit(t *testing.T) {
	if len(faults) < 20 {
		t.Errorf("%d faults, want at least 20", len(faults))
	}
	for _, f := range faults {
		whole, err := os.ReadFile(filepath.Join("..", "..", f.file))
		if err != nil {
			t.Error(err)
			continue
		}
		if _, err := f.put(string(whole)); err != nil {
			t.Error(err)
		}
	}
}
