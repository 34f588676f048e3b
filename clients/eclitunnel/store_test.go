package main

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel/clients/agent"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/channel"
)

func TestEnroll_AsksForNoCodeIfItsResultCannotBeStored(t *testing.T) {
	for name, prepare := range map[string]func(path string) error{
		"a directory":      func(path string) error { return os.Mkdir(path, 0o700) },
		"a link to itself": func(path string) error { return os.Symlink(filepath.Base(path), path) },
		"below a file": func(path string) error {
			return os.WriteFile(filepath.Dir(path), nil, 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			p, m := newPanel(t), newMachine(t)
			m.env["ECLITUNNEL_CONFIG"] = filepath.Join(t.TempDir(), "config.json")
			if name == "below a file" {
				m.env["ECLITUNNEL_CONFIG"] = filepath.Join(t.TempDir(), "file", "config.json")
			}
			if err := prepare(m.env["ECLITUNNEL_CONFIG"]); err != nil {
				t.Skip(err)
			}
			m.run("enroll", "--panel", p.URL, "--name", "home", "--force").want(t, 1, "config")
			if p.started.Name != "" {
				t.Error("asked for a code")
			}
		})
	}
}

func TestEnroll_StoresThroughLinksAndInAnEmptyFile(t *testing.T) {
	for name, prepare := range map[string]func(path, target string) error{
		"a link":          func(path, target string) error { return os.WriteFile(target, nil, 0o600) },
		"a dangling link": func(string, string) error { return nil },
		"blank":           func(path, target string) error { return os.WriteFile(target, []byte("\n"), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			p, m := newPanel(t), newMachine(t)
			path, target := m.env["ECLITUNNEL_CONFIG"], filepath.Join(t.TempDir(), "real.json")
			if err := prepare(path, target); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(target, path); err != nil {
				t.Skip(err)
			}
			p.polls = []answer{approved(p.token)}
			m.run("enroll", "--panel", p.URL).want(t, 0)
			if to, err := os.Readlink(path); err != nil || to != target {
				t.Errorf("the link leads to %q, %v", to, err)
			}
			m.run("list").want(t, 0)
		})
	}
}

func TestEnroll_ByForceKeepsTheOldEnrollmentUntilTheNewOneIsWhole(t *testing.T) {
	p := newPanel(t)
	m := enrolledAt(t, p)
	before := m.config()
	for name, last := range map[string]answer{
		"denied":      refusal(403, types.CodeEnrollmentDenied),
		"expired":     refusal(410, types.CodeEnrollmentExpired),
		"not a token": approved("x"),
	} {
		p.polls = []answer{last}
		if o := m.run("enroll", "--panel", p.URL, "--force"); o.code == 0 || m.config().Token != before.Token {
			t.Errorf("%s: exit code %d, config %+v", name, o.code, m.config())
		}
	}
}

func TestEnroll_KeepsTheTokenThatItCannotStore(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("TMPDIR names the directory for temporary files elsewhere")
	}
	// The directory is lost while somebody approves.
	lose := func(path string) error {
		if err := os.RemoveAll(filepath.Dir(path)); err != nil {
			return err
		}
		return os.WriteFile(filepath.Dir(path), nil, 0o600)
	}
	p, m := newPanel(t), newMachine(t)
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	path := filepath.Join(t.TempDir(), "dir", "config.json")
	m.env["ECLITUNNEL_CONFIG"] = path
	p.polls, p.onPoll = []answer{approved(p.token)}, func() {
		if err := lose(path); err != nil {
			t.Error(err)
		}
	}
	o := m.run("enroll", "--panel", p.URL, "--name", "home", "--allow", "game.lan")
	o.want(t, 1, "cannot be stored", "approved as home", p.device.String())
	_, command, found := strings.Cut(o.stderr, "\neclitunnel ")
	command, _, _ = strings.Cut(command, "\n")
	if !found || !strings.Contains(command, temp) {
		t.Fatalf("printed %s", o.stderr)
	}
	if err := os.Remove(filepath.Dir(path)); err != nil {
		t.Fatal(err)
	}
	installed := newMachine(t) // The command names the file of the enrollment.
	installed.run(strings.Fields(command)...).want(t, 0)
	if c := m.config(); c.Token != p.token || c.PanelURL != p.URL || len(c.Allow) != 1 {
		t.Errorf("config %+v", c)
	}

	// Renewing keeps the hosts that are allowed already.
	p.onRegenerate = func() {
		if err := lose(path); err != nil {
			t.Error(err)
		}
	}
	m.stdin = samplePassword
	o = m.run("enroll", "--renew", "--user", "you@example.com", "--allow", "other.lan")
	o.want(t, 1, "cannot be stored", " --config "+path, " --allow game.lan --allow other.lan")
	if err := os.Remove(filepath.Dir(path)); err != nil {
		t.Fatal(err)
	}

	// Nor can the token be kept elsewhere.
	t.Setenv("TMPDIR", filepath.Join(temp, "none"))
	m.run("enroll", "--panel", p.URL, "--force").want(t, 1, "cannot be stored", p.device.String(), "--token-file FILE --panel "+p.URL)
}

func TestCommands_ReadWhatEditorsWrite(t *testing.T) {
	const mark = "\uFEFF"
	utf16 := func(text string) string { return "\xff\xfe" + strings.Join(strings.Split(text, ""), "\x00") + "\x00" }
	p := newPanel(t)
	for name, write := range map[string]func(text string) string{
		"a mark":          func(text string) string { return mark + text },
		"Windows":         func(text string) string { return strings.ReplaceAll(text, "\n", "\r\n") + "\r\n" },
		"mark and breaks": func(text string) string { return mark + strings.ReplaceAll(text, "\n", "\r\n") + "\r\n\r\n" },
	} {
		for source, set := range map[string]func(m *machine){
			"file": func(m *machine) {
				m.env["ECLITUNNEL_TOKEN_FILE"] = filepath.Join(t.TempDir(), "token")
				m.write(m.env["ECLITUNNEL_TOKEN_FILE"], write(p.token))
			},
			"standard input": func(m *machine) { m.env["ECLITUNNEL_TOKEN_FILE"], m.stdin = "-", write(p.token) },
			"environment":    func(m *machine) { m.env["ECLITUNNEL_TOKEN"] = write(p.token) },
		} {
			m := newMachine(t)
			m.env["ECLITUNNEL_PANEL"] = write(p.URL)
			set(m)
			if o := m.run("list"); o.code != 0 {
				t.Errorf("%s, %s: exit code %d, %s", name, source, o.code, o.stderr)
			}
		}
		m := enrolledAt(t, p)
		text, err := os.ReadFile(m.env["ECLITUNNEL_CONFIG"])
		if err != nil {
			t.Fatal(err)
		}
		m.write(m.env["ECLITUNNEL_CONFIG"], write(string(text)))
		if o := m.run("list"); o.code != 0 {
			t.Errorf("%s, config: exit code %d, %s", name, o.code, o.stderr)
		}
	}
	m := enrolledAt(t, p)
	m.env["ECLITUNNEL_PANEL"] = p.URL + "/\xe9"
	m.run("list").want(t, 2, "ECLITUNNEL_PANEL is not in UTF-8")
	m.env["ECLITUNNEL_PANEL"], m.stdin = "", utf16(p.token)
	m.run("list", "--token-file", "-").want(t, 2, "standard input is encoded in UTF-16")
	m.write(m.env["ECLITUNNEL_CONFIG"], utf16(`{"token":""}`))
	m.run("list").want(t, 1, "config.json is encoded in UTF-16")
}

func (m *machine) write(path, text string) {
	m.t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		m.t.Fatal(err)
	}
}

func TestCommands_RefuseSecretsThatOthersCanRead(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has access lists in place of modes")
	}
	p := newPanel(t)
	secret := filepath.Join(t.TempDir(), "secret")
	for name, test := range map[string]struct {
		machine *machine
		file    string
		args    []string
		code    int
	}{
		"a token":           {newMachine(t), secret, []string{"list", "--token-file", secret, "--panel", p.URL}, 2},
		"a session":         {newMachine(t), secret, []string{"enroll", "--session-token-file", secret, "--panel", p.URL}, 2},
		"a certificate key": {tunnelServerAt(t, newPanel(t)), secret, []string{"run", "--certificate-file", secret, "--certificate-key-file", secret}, 1},
		"the config":        {enrolledAt(t, p), "", []string{"list"}, 1},
	} {
		path := test.file
		if path == "" {
			path = test.machine.env["ECLITUNNEL_CONFIG"]
		} else {
			test.machine.write(path, "secret")
		}
		if err := os.Chmod(path, 0o644); err != nil {
			t.Fatal(err)
		}
		if o := test.machine.run(test.args...); o.code != test.code || !strings.Contains(o.stderr, "run: chmod 600 "+path) {
			t.Errorf("%s: exit code %d, %s", name, o.code, o.stderr)
		}
	}
}

func TestRun_SaysOnceThatThereIsNoDirectoryForTheState(t *testing.T) {
	p := newPanel(t)
	p.closeCode = channel.CloseTokenDead
	m := newMachine(t)
	m.env = map[string]string{"ECLITUNNEL_TOKEN": p.token, "ECLITUNNEL_PANEL": p.URL}
	t.Setenv("HOME", "")
	t.Setenv("XDG_CONFIG_HOME", "")
	if _, err := agent.DefaultConfigPath(); err == nil {
		t.Skip("this system has a config directory without HOME")
	}
	o := m.run("run")
	o.want(t, 5)
	if n := strings.Count(o.stderr, "not kept"); n != 1 || !strings.Contains(o.stderr, "--state-dir") {
		t.Errorf("said %d times: %s", n, o.stderr)
	}
	m.env["ECLITUNNEL_STATE_DIR"] = t.TempDir()
	if o := m.run("run"); strings.Contains(o.stderr, "not kept") {
		t.Errorf("said %s", o.stderr)
	}
}
