package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestFindAgents_LooksBesideTheProgramUnlessTold(t *testing.T) {
	if found := findAgents("elsewhere"); found != "elsewhere" {
		t.Errorf("the setting is %q", found)
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	beside := filepath.Join(filepath.Dir(program), "agents")
	if found := findAgents(""); found == beside {
		t.Errorf("it is %q, which does not exist", found)
	}
	if err := os.Mkdir(beside, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(beside) })
	if found := findAgents(""); found != beside {
		t.Errorf("it is %q", found)
	}
}
