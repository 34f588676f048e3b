package deploy

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var setting = regexp.MustCompile(`\bECLITUNNEL_[A-Z0-9_]+`)

// secrets come from the environment or from files, and are no flags.
var secrets = []string{"ECLITUNNEL_DATABASE_URL", "ECLITUNNEL_ADMIN_PASSWORD", "ECLITUNNEL_TOKEN", "ECLITUNNEL_SESSION_TOKEN"}

// help returns the variables that the help of a command lists.
func help(t *testing.T, program string, command ...string) map[string]bool {
	t.Helper()
	text := run(t, ".", "go", append([]string{"run", "-buildvcs=false", program}, append(command, "--help")...)...)
	known := map[string]bool{}
	for _, name := range append(setting.FindAllString(text, -1), secrets...) {
		known[name] = true
	}
	if len(known) == len(secrets) {
		t.Fatalf("no settings in the help of %s %v:\n%s", program, command, text)
	}
	return known
}

func TestSettings_AreThoseOfTheBinaries(t *testing.T) {
	panel := help(t, "./server/eclitunneld", "serve")
	agent := help(t, "./clients/eclitunnel", "run")
	count := 0
	err := filepath.WalkDir(filepath.Join(root, "deploy"), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, name := range setting.FindAllString(string(text), -1) {
			count++
			var known bool
			switch {
			case strings.Contains(path, "eclitunneld.service"):
				known = panel[name]
			case strings.Contains(path, "eclitunnel.service"):
				known = agent[name]
			default: // What both are in.
				known = panel[name] || agent[name]
			}
			if !known {
				t.Errorf("%s: there is no %s", path, name)
			}
		}
		return nil
	})
	if err != nil || count == 0 {
		t.Errorf("%d settings found, %v", count, err)
	}
}
