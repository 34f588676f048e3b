package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel/internal/commandline"
)

func TestManual_IsWellFormedAndTheSameForEverybody(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "1767225600")
	t.Setenv("XDG_STATE_HOME", "/home/ada/state")
	dir := t.TempDir()
	var stdout, stderr strings.Builder
	if code := run(t.Context(), []string{"man", dir}, strings.NewReader(""), &stdout, &stderr); code != exitOK {
		t.Fatalf("exit code %d: %s", code, stderr.String())
	}
	pages, err := filepath.Glob(filepath.Join(dir, "eclitunneld*.1"))
	if err != nil || len(pages) < 5 {
		t.Fatalf("wrote %v (%v)", pages, err)
	}
	if _, err := exec.LookPath("mandoc"); err != nil && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	output, err := exec.CommandContext(t.Context(), "mandoc", append([]string{"-T", "lint"}, pages...)...).CombinedOutput()
	if err != nil || len(output) > 0 {
		t.Errorf("%v\n%s", err, output)
	}
	text, err := exec.CommandContext(t.Context(), "mandoc", "-T", "utf8", filepath.Join(dir, "eclitunneld-serve.1")).Output()
	if err != nil || !strings.Contains(string(text), "/var/lib/eclitunneld") || strings.Contains(string(text), "/home/ada") {
		t.Errorf("it has another data directory (%v):\n%s", err, text)
	}
}

func TestCompletion_OffersCommandsAndFlags(t *testing.T) {
	for line, want := range map[string]string{"ad": "admin\tManage admins\n", "admin ": "create\tCreate an admin, whether or not a panel is running\n", "serve --log-format ": "text\njson\n"} {
		var stdout, stderr strings.Builder
		code := run(t.Context(), append([]string{commandline.Word, "fish"}, strings.Split(line, " ")...), strings.NewReader(""), &stdout, &stderr)
		if code != exitOK || stdout.String() != want || stderr.Len() > 0 {
			t.Errorf("%q offers %q (%d, %q)", line, stdout.String(), code, stderr.String())
		}
	}
}
