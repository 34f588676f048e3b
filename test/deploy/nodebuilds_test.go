package deploy

import (
	"compress/gzip"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// tree is a checkout in which scripts/node-builds runs, with programs of the test's own.
type tree struct {
	t        *testing.T
	dir, bin string
}

const (
	consoleBuilt  = "server/internal/web/static/console"
	explorerBuilt = "server/internal/web/static/explorer/scalar.js.gz"
	consoleSource = "clients/console/src/main.ts"
)

// npm stands for npm: it says what it was called for, and builds as Vite does.
const npm = `#!/usr/bin/env bash
set -e
echo "$*" >>"$NPM_LOG"
case $1 in
ci)
	[[ $NPM_FAILS != ci ]] || exit 1
	mkdir -p "$3/node_modules/@scalar/api-reference/dist/browser"
	echo bundle >"$3/node_modules/@scalar/api-reference/dist/browser/standalone.js"
	touch "$3/node_modules/.package-lock.json"
	;;
run)
	echo "what Vite says"
	[[ $NPM_FAILS != run ]] || exit 1
	content=$(cat "$4/src/main.ts")
	rm -rf "$4/dist"
	mkdir -p "$4/dist/fonts"
	echo "page of $content" >"$4/dist/index.html"
	echo "script" >"$4/dist/_index-$content.js"
	echo "font" >"$4/dist/fonts/text.woff2"
	;;
esac
`

func newTree(t *testing.T) tree {
	t.Helper()
	c := tree{t, t.TempDir(), t.TempDir()}
	for _, script := range []string{"node-builds", "console", "explorer", "gzip.mjs"} {
		c.write("scripts/"+script, read(t, "scripts", script))
	}
	// Sources are older than what is made of them.
	for _, file := range []string{
		"clients/console/package.json", "clients/console/package-lock.json", consoleSource,
		"clients/ts/src/index.ts", "tools/explorer/package-lock.json",
	} {
		c.write(file, "one")
		old := time.Now().Add(-time.Hour)
		if err := os.Chtimes(filepath.Join(c.dir, file), old, old); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(c.dir, filepath.Dir(explorerBuilt)), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, program := range []string{"bash", "cat", "dirname", "find", "mkdir", "mktemp", "mv", "rm", "touch"} {
		c.link(program)
	}
	return c
}

func (c tree) write(file, text string) {
	c.t.Helper()
	path := filepath.Join(c.dir, file)
	if filepath.IsAbs(file) {
		path = file
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		c.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		c.t.Fatal(err)
	}
}

// link gives the scripts a program of this machine.
func (c tree) link(program string) {
	c.t.Helper()
	path, err := exec.LookPath(program)
	if err != nil && os.Getenv("CI") == "" {
		c.t.Skip(err)
	}
	if err == nil {
		err = os.Symlink(path, filepath.Join(c.bin, program))
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// withNode gives the scripts Node.js, and an npm.
func (c tree) withNode() tree {
	c.link("node")
	c.write(filepath.Join(c.bin, "npm"), npm)
	return c
}

// build runs the script, and returns what it printed, what npm was called for, and its error.
func (c tree) build(variables ...string) (printed, calls string, err error) {
	c.t.Helper()
	log := filepath.Join(c.t.TempDir(), "npm.log")
	c.write(log, "")
	cmd := exec.CommandContext(c.t.Context(), filepath.Join(c.dir, "scripts", "node-builds"))
	cmd.Env = append([]string{"PATH=" + c.bin, "NPM_LOG=" + log, "NPM_FAILS=", "CI="}, variables...)
	out, err := cmd.CombinedOutput()
	called, readErr := os.ReadFile(log)
	if readErr != nil {
		c.t.Fatal(readErr)
	}
	return string(out), string(called), err
}

// embedded returns the text of a compressed file, or why there is none.
func (c tree) embedded(file string) string {
	c.t.Helper()
	f, err := os.Open(filepath.Join(c.dir, file))
	if err != nil {
		return "none"
	}
	defer f.Close()
	r, err := gzip.NewReader(f)
	if err != nil {
		return err.Error()
	}
	text, err := io.ReadAll(r)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(text))
}

// wantConsole checks which console is there: all of it, and nothing of an earlier one.
func (c tree) wantConsole(content string) {
	c.t.Helper()
	entries, err := os.ReadDir(filepath.Join(c.dir, consoleBuilt))
	if err != nil || len(entries) != 3 {
		c.t.Errorf("the console is %v, %v", entries, err)
	}
	for file, want := range map[string]string{"index.html.gz": "page of " + content, "_index-" + content + ".js.gz": "script", "fonts/text.woff2.gz": "font"} {
		if got := c.embedded(consoleBuilt + "/" + file); got != want {
			c.t.Errorf("%s is %q, want %q", file, got, want)
		}
	}
	if left, err := filepath.Glob(filepath.Join(c.dir, "bin", "*")); err != nil || len(left) != 0 {
		c.t.Errorf("the build leaves %v, %v", left, err)
	}
}

const explorerCalls = "ci --prefix tools/explorer --silent\n"

func TestNodeBuilds_WithoutNodeSayInOneLineWhatIsLeftOut(t *testing.T) {
	for name, test := range map[string]struct{ node, reason string }{
		"no Node.js":  {"", "there is no Node.js with npm"},
		"one too old": {"#!/usr/bin/env bash\n[[ $1 == --version ]] && echo v18.20.4", "Node.js v18.20.4 is older than 20.19"},
	} {
		t.Run(name, func(t *testing.T) {
			c := newTree(t)
			if test.node != "" {
				c.write(filepath.Join(c.bin, "node"), test.node)
				c.write(filepath.Join(c.bin, "npm"), npm)
			}
			c.write(consoleBuilt+"/index-old.js.gz", "of an earlier build")
			for range 2 {
				printed, calls, err := c.build("CI=true")
				if want := "build: without console and API explorer: " + test.reason + "\n"; err != nil || printed != want || calls != "" {
					t.Errorf("it prints %q and calls %q, %v", printed, calls, err)
				}
			}
			if _, err := os.Stat(filepath.Join(c.dir, consoleBuilt)); !os.IsNotExist(err) {
				t.Errorf("the build has half a console: %v", err)
			}
		})
	}
}

func TestNodeBuilds_MakeWhatIsOlderThanItsSources(t *testing.T) {
	c := newTree(t).withNode()
	const consoleBuild = "run build --prefix clients/console\n"
	step := func(what, want, content string) {
		t.Helper()
		if printed, calls, err := c.build(); err != nil || printed != "" || calls != want {
			t.Errorf("%s: it prints %q and calls %q, %v", what, printed, calls, err)
		}
		c.wantConsole(content)
		if got := c.embedded(explorerBuilt); got != "bundle" {
			t.Errorf("%s: the explorer is %q", what, got)
		}
	}
	step("at first", "ci --prefix clients/console --silent\n"+consoleBuild+explorerCalls, "one")
	step("again", "", "one")
	c.write(consoleSource, "two")
	step("with another source", consoleBuild, "two")
	c.write("clients/ts/src/index.ts", "two")
	step("with another SDK", consoleBuild, "two")
	c.write("clients/console/package-lock.json", "two")
	step("with other packages", "ci --prefix clients/console --silent\n"+consoleBuild, "two")
	step("again", "", "two")

	// What is there needs no Node.js.
	if err := os.Remove(filepath.Join(c.bin, "node")); err != nil {
		t.Fatal(err)
	}
	step("without Node.js", "", "two")
	c.write("tools/explorer/package-lock.json", "two")
	printed, _, err := c.build()
	if err != nil || printed != "build: without API explorer: there is no Node.js with npm\n" || c.embedded(explorerBuilt) != "none" {
		t.Errorf("it prints %q, %v", printed, err)
	}
	c.wantConsole("two")
}

func TestNodeBuilds_WithoutRegistryAreLeftOut(t *testing.T) {
	c := newTree(t).withNode()
	printed, _, err := c.build("NPM_FAILS=ci")
	if err != nil || printed != "build: without console and API explorer: npm ci fails in clients/console\n" {
		t.Errorf("it prints %q, %v", printed, err)
	}
	if printed, _, err = c.build("NPM_FAILS=ci", "CI=true"); err == nil {
		t.Errorf("a release would lack them: it prints %q", printed)
	}
}

func TestNodeBuilds_AMistakeInTheConsoleIsShown(t *testing.T) {
	c := newTree(t).withNode()
	if printed, _, err := c.build(); err != nil {
		t.Fatal(printed, err)
	}
	c.write(consoleSource, "two")
	if printed, _, err := c.build("NPM_FAILS=run"); err == nil || !strings.Contains(printed, "what Vite says") {
		t.Errorf("it prints %q, %v", printed, err)
	}
	c.wantConsole("one")
}

func TestNodeBuilds_AreOfEveryBuildOfThePanel(t *testing.T) {
	for target, builds := range map[string]string{"build": "./server/eclitunneld", "build-all": "./server/eclitunneld", "release": "./scripts/release"} {
		before, _, _ := strings.Cut(run(t, "", "make", "-n", target), builds)
		if !strings.Contains(before, "scripts/node-builds\n") {
			t.Errorf("make %s builds the panel without them", target)
		}
	}
}
