//go:build unix

package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel/clients/agent/update"
)

// programText is a program that says it is of a version. Where $UPDATE_TEST_SERVICE is a
// directory, it has a service that runs, whose starts it notes there.
func programText(version string) string {
	return `#!/bin/sh
case "$1 $2" in
"version --json") echo '{"version": "` + version + `"}' ;;
"service status") [ -n "$UPDATE_TEST_SERVICE" ] || exit 2; echo '{"installed": true, "running": true}' ;;
"service restart") echo ` + version + ` >> "$UPDATE_TEST_SERVICE/starts" ;;
*) exit 2 ;;
esac
`
}

// updating is a machine whose program is of version 1.0.0, and its panel.
type updating struct {
	*machine
	panel *panel
	key   ed25519.PrivateKey
}

func newUpdating(t *testing.T, signed bool) updating {
	t.Helper()
	p := newPanel(t)
	u := updating{machine: enrolledAt(t, p), panel: p}
	u.program = filepath.Join(t.TempDir(), "eclitunnel")
	if err := os.WriteFile(u.program, []byte(programText("1.0.0")), 0o755); err != nil {
		t.Fatal(err)
	}
	oldVersion, oldKey := version, releaseKey
	t.Cleanup(func() { version, releaseKey = oldVersion, oldKey })
	version = "1.0.0"
	if signed {
		public, private, err := ed25519.GenerateKey(nil)
		if err != nil {
			t.Fatal(err)
		}
		u.key, releaseKey = private, base64.StdEncoding.EncodeToString(public)
	}
	return u
}

// handOut has the panel hand out a version.
func (u updating) handOut(version string) {
	u.t.Helper()
	var archive bytes.Buffer
	compressed := gzip.NewWriter(&archive)
	files := tar.NewWriter(compressed)
	text := programText(version)
	err := files.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "eclitunnel", Mode: 0o755, Size: int64(len(text))})
	if err == nil {
		_, err = io.WriteString(files, text)
	}
	if err != nil || files.Close() != nil || compressed.Close() != nil {
		u.t.Fatal(err)
	}
	name := "eclitunnel_" + version + "_" + update.Platform() + ".tar.gz"
	sum := sha256.Sum256(archive.Bytes())
	sums := []byte(hex.EncodeToString(sum[:]) + "  " + name + "\n")
	handedOut := map[string][]byte{name: archive.Bytes(), "SHA256SUMS": sums}
	if u.key != nil {
		handedOut["SHA256SUMS.sig"] = ed25519.Sign(u.key, sums)
	}
	u.panel.mu.Lock()
	defer u.panel.mu.Unlock()
	u.panel.files = handedOut
}

// wantProgram fails unless the program is of a version, and the one before of another; ""
// is none.
func (u updating) wantProgram(now, before string) {
	u.t.Helper()
	for path, version := range map[string]string{u.program: now, update.Old(u.program): before} {
		want := ""
		if version != "" {
			want = programText(version)
		}
		if text, err := os.ReadFile(path); string(text) != want {
			u.t.Errorf("%s is not version %q (%v):\n%s", path, version, err, text)
		}
	}
}

func TestUpdate_ChecksReplacesAndGoesBack(t *testing.T) {
	u := newUpdating(t, true)
	u.handOut("1.1.0")
	u.run("update", "--check").want(t, 0, "The panel has version 1.1.0; this is 1.0.0", "eclitunnel update")
	u.wantProgram("1.0.0", "")
	u.run("update").want(t, 0, "is version 1.1.0 now", "eclitunnel.old")
	u.wantProgram("1.1.0", "1.0.0")
	version = "1.1.0"
	u.run("update").want(t, 0, "This is version 1.1.0, which the panel has too")
	u.run("update", "--rollback").want(t, 0, "is version 1.0.0 again")
	u.wantProgram("1.0.0", "1.1.0")
	u.run("update", "--rollback", "--check").want(t, 2, "--rollback goes with none")
}

func TestUpdate_NeedsConsentForAnOlderVersion(t *testing.T) {
	u := newUpdating(t, true)
	u.handOut("0.9.0")
	for _, args := range [][]string{{"update"}, {"update", "--check"}, {"update", "--unsigned"}} {
		u.run(args...).want(t, 0, "older version 0.9.0", "--to 0.9.0")
	}
	u.run("update", "--to", "0.8.0").want(t, 1, "version 0.8.0")
	u.wantProgram("1.0.0", "")
	u.run("update", "--to", "0.9.0").want(t, 0, "is version 0.9.0 now")
	u.wantProgram("0.9.0", "1.0.0")
	version = "dev"
	u.handOut("1.1.0")
	u.run("update").want(t, 0, "is no release", "--to 1.1.0")
	u.wantProgram("0.9.0", "1.0.0")
}

func TestUpdate_WithoutAKeyNeedsConsent(t *testing.T) {
	u := newUpdating(t, false)
	u.handOut("1.1.0")
	u.run("update", "--check").want(t, 0, "version 1.1.0", "--unsigned")
	u.run("update").want(t, 2, "no key", "--unsigned")
	u.wantProgram("1.0.0", "")
	o := u.run("update", "--unsigned", "--json")
	o.want(t, 0)
	wantKeys(t, o.stdout, "available", "current", "installed", "newer", "program", "restarted", "signed")
	u.wantProgram("1.1.0", "1.0.0")
}

func TestUpdate_SaysWhatIsWrongAndChangesNothing(t *testing.T) {
	u := newUpdating(t, true)
	u.run("update").want(t, 1, "hands out no SHA256SUMS: This panel has no agents to hand out.")
	archive := "eclitunnel_1.1.0_" + update.Platform() + ".tar.gz"
	for name, c := range map[string]struct {
		change func(files map[string][]byte)
		words  string
	}{
		"no signature":    {func(f map[string][]byte) { delete(f, "SHA256SUMS.sig") }, "not signed with the key"},
		"other checksums": {func(f map[string][]byte) { f["SHA256SUMS"] = bytes.ToUpper(f["SHA256SUMS"]) }, "not signed with the key"},
		"another archive": {func(f map[string][]byte) { f[archive] = []byte("other") }, "checksum is wrong. Nothing was changed"},
		"a part of it":    {func(f map[string][]byte) { f[archive] = f[archive][:100] }, "checksum is wrong"},
		"no archive":      {func(f map[string][]byte) { delete(f, archive) }, "hands out no " + archive},
		"another platform": {func(f map[string][]byte) {
			f["SHA256SUMS"] = []byte(strings.ReplaceAll(string(f["SHA256SUMS"]), update.Platform(), "plan9_mips"))
			f["SHA256SUMS.sig"] = ed25519.Sign(u.key, f["SHA256SUMS"])
		}, "no such agent: none for " + update.Platform()},
	} {
		u.handOut("1.1.0")
		u.panel.mu.Lock()
		c.change(u.panel.files)
		u.panel.mu.Unlock()
		u.run("update", "--unsigned").want(t, 1, c.words)
		if t.Failed() {
			t.Fatal(name)
		}
	}
	u.handOut("1.1.0")
	u.wantProgram("1.0.0", "")
	u.run("update", "--rollback").want(t, 1, "no program from before", "eclitunnel.old")
	u.program = "/proc/self/eclitunnel" // Nobody can write there, not even root.
	u.run("update").want(t, 1, "/proc/self")
}

func TestUpdate_NeedsOnlyTheAddressOfAPanel(t *testing.T) {
	u := newUpdating(t, true)
	u.handOut("1.1.0")
	u.env["ECLITUNNEL_CONFIG"] = filepath.Join(t.TempDir(), "none.json")
	u.run("update").want(t, 6, "not enrolled")
	u.run("update", "--panel", u.panel.URL).want(t, 0, "is version 1.1.0 now")
}

func TestUpdate_SaysWhichAgentStillRunsTheProgramBefore(t *testing.T) {
	u := newUpdating(t, true)
	u.handOut("1.1.0")
	u.background("connected", "run")
	u.run("update").want(t, 0, "is version 1.1.0 now", "still runs the program from before")
}

// starts are the versions whose service was started.
func starts(t *testing.T) string {
	text, err := os.ReadFile(filepath.Join(os.Getenv("UPDATE_TEST_SERVICE"), "starts"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(strings.Fields(string(text)), " ")
}

func TestUpdate_RestartsTheServiceAndGoesBackIfItDoesNotWork(t *testing.T) {
	u := newUpdating(t, true)
	t.Setenv("UPDATE_TEST_SERVICE", t.TempDir())
	u.handOut("1.1.0")
	asks := 0
	u.panel.online = true
	u.panel.agentVersion = func() string {
		if asks++; asks < 3 {
			return "1.0.0"
		}
		return "1.1.0"
	}
	o := u.run("update", "--json")
	o.want(t, 0)
	var state updateState
	if err := json.Unmarshal([]byte(o.stdout), &state); err != nil || !state.Restarted || state.Installed != "1.1.0" || starts(t) != "1.1.0" {
		t.Errorf("%v, %+v; started %s", err, state, starts(t))
	}
	u.wantProgram("1.1.0", "1.0.0")

	version = "1.1.0"
	u.handOut("1.2.0")
	u.run("update").want(t, 1, "does not reach the panel", "from before again")
	u.wantProgram("1.1.0", "1.2.0")
	if s := starts(t); s != "1.1.0 1.2.0 1.1.0" {
		t.Errorf("started %s", s)
	}
	u.run("update", "--rollback").want(t, 0, "is version 1.2.0 again", "The service runs it")
}
