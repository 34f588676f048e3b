// Package deploy holds what lies in deploy/ to what it deploys: every metric that
// a rule or the dashboard names is scraped from a running panel and agent, every
// flag and variable exists, and the programs that will read the files accept them.
// It also holds docs/settings.md to what the programs offer.
package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/eclitunnel/eclitunnel/db/dbtest"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// root is the repository's.
var root = filepath.Join("..", "..")

func read(t *testing.T, path ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(append([]string{root}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// run runs a program at a directory of the repository, and returns what it
// printed. A test whose program is missing is skipped, and fails where CI is set.
func run(t *testing.T, dir, program string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Dir = filepath.Join(root, dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%s %v: %v\n%s", program, args, err, out)
	}
	return string(out)
}
