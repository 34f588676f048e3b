package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"strings"
)

const homepage = "https://github.com/eclitunnel/eclitunnel"

// A Debian system on 32-bit ARM may be a Raspberry Pi of the first kind, so its package has
// the program for version 6. Distributions with rpm begin at version 7.
const (
	debianARM = "6"
	rpmARM    = "7"
)

// content is a file of a package, as nfpm's configuration has it.
type content struct {
	From string `json:"src,omitempty"`
	To   string `json:"dst"`
	Kind string `json:"type,omitempty"`
	Info info   `json:"file_info"`
	// Packager is deb or rpm if only that one has it.
	Packager string `json:"packager,omitempty"`
}

type info struct {
	Mode  int64  `json:"mode"`
	Owner string `json:"owner"`
	Group string `json:"group"`
}

// packages writes .deb and .rpm of a program for a platform into made, if it has such.
func (r *release) packages(ctx context.Context, p program, target platform, binary, made string) error {
	if target.os != "linux" {
		return nil
	}
	pages, err := r.pages(ctx, p, target, binary)
	if err != nil {
		return err
	}
	config, err := r.packageConfig(p, target, binary, pages)
	if err != nil {
		return err
	}
	for packager, arm := range map[string]string{"deb": debianARM, "rpm": rpmARM} {
		if target.arm != "" && target.arm != arm {
			continue
		}
		// The name says for which processor it is as the other names do: a release page
		// shows all of them together.
		file := filepath.Join(made, p.name+"_"+r.version+"_"+target.String()+"."+packager)
		cmd := exec.CommandContext(ctx, "go", "tool", "-modfile=tools/packages/go.mod", "nfpm", "package",
			"--config", config, "--packager", packager, "--target", file)
		cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH="+strconv.FormatInt(r.time.Unix(), 10))
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("make %s: %w: %s", filepath.Base(file), err, bytes.TrimSpace(out))
		}
	}
	return nil
}

// packageConfig writes nfpm's configuration of a package beside the binary, with what the
// package needs, and returns its path. JSON is YAML.
func (r *release) packageConfig(p program, target platform, binary string, pages []content) (string, error) {
	dir := filepath.Dir(binary)
	scripts := map[string]string{}
	for _, name := range []string{"postinstall", "preremove", "postremove"} {
		text, err := os.ReadFile(filepath.Join("deploy", "packages", name+".sh"))
		if err != nil {
			return "", err
		}
		scripts[name] = filepath.Join(dir, name+".sh")
		if err := os.WriteFile(scripts[name], bytes.ReplaceAll(text, []byte("@SERVICE@"), []byte(p.unit)), 0o755); err != nil {
			return "", err
		}
	}
	users, err := sysuser(p.unit, dir)
	if err != nil {
		return "", err
	}
	contents := []content{
		file(binary, "/usr/bin/"+p.name, 0o755),
		file(filepath.Join("deploy", "systemd", p.unit+".service"), "/usr/lib/systemd/system/"+p.unit+".service", 0o644),
		file(users, "/usr/lib/sysusers.d/"+p.unit+".conf", 0o644),
		file("LICENSE", "/usr/share/doc/"+p.name+"/copyright", 0o644),
		{Kind: "dir", To: "/etc/eclitunnel", Info: info{0o755, "root", "root"}},
		// It may hold secrets.
		{From: "deploy/packages/" + p.unit + ".env", To: "/etc/eclitunnel/" + p.unit + ".env", Kind: "config|noreplace", Info: info{0o600, "root", "root"}},
	}
	contents = append(contents, pages...)
	if p.name == panel.name {
		for _, e := range r.handedOut("/usr/share/eclitunnel/agents") {
			contents = append(contents, file(e.from, e.name, e.mode))
		}
	}
	text, err := json.Marshal(map[string]any{
		"name": p.name, "version": r.version, "arch": target.arch + target.arm, "platform": "linux", "section": "net", "priority": "optional",
		"maintainer": "EcliTunnel <" + homepage + ">", "description": p.summary + "\n" + p.description,
		"homepage": homepage, "license": "Apache-2.0", "contents": contents, "scripts": scripts, "overrides": p.recommends,
		// Archives in it are compressed.
		"deb": map[string]any{"compression": "gzip"},
		"rpm": map[string]any{"compression": "gzip", "summary": p.summary, "buildhost": "eclitunnel"},
	})
	if err != nil {
		return "", err
	}
	config := filepath.Join(dir, "nfpm.yaml")
	return config, os.WriteFile(config, text, 0o644)
}

func file(from, to string, mode int64) content {
	return content{From: from, To: path.Clean(to), Info: info{mode, "root", "root"}}
}

// sysuser writes a service's line of eclitunnel.sysusers into a file of its own, since a
// file belongs to one package, and returns its path.
func sysuser(service, dir string) (string, error) {
	text, err := os.ReadFile(filepath.Join("deploy", "systemd", "eclitunnel.sysusers"))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "u "+service+" ") {
			users := filepath.Join(dir, service+".sysusers")
			return users, os.WriteFile(users, []byte(line), 0o644)
		}
	}
	return "", errors.New("eclitunnel.sysusers has no user " + service)
}
