package main

import (
	"cmp"
	"debug/buildinfo"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// component is a part of a program, as a bill of materials has it (CycloneDX 1.5).
type component struct {
	Type     string    `json:"type"`
	Ref      string    `json:"bom-ref"`
	Name     string    `json:"name"`
	Version  string    `json:"version"`
	Hashes   []hash    `json:"hashes,omitempty"`
	Licenses []license `json:"licenses,omitempty"`
	URL      string    `json:"purl"`
}

type hash struct {
	Algorithm string `json:"alg"`
	Content   string `json:"content"`
}

type license struct {
	Expression string `json:"expression"`
}

// bundles are what the panel embeds if Node.js built it: a file of it, and where the
// versions of its packages are.
var bundles = map[string]string{
	"server/internal/web/static/console/index.html.gz": "clients/console/package-lock.json",
	"server/internal/web/static/explorer/scalar.js.gz": "tools/explorer/package-lock.json",
}

// bill writes what a program consists of into made: the modules that its binaries were
// linked from, whichever platform they are for, Go itself, and the npm packages in the
// panel's web pages.
func (r *release) bill(p program, binaries []string, made string) error {
	parts := map[string]component{}
	add := func(c component) {
		c.Type, c.Ref = "library", c.URL
		parts[c.URL] = c
	}
	for _, binary := range binaries {
		built, err := buildinfo.ReadFile(binary)
		if err != nil {
			return err
		}
		compiler := strings.TrimPrefix(built.GoVersion, "go")
		add(component{Name: "std", Version: compiler, URL: "pkg:golang/std@" + compiler})
		for _, module := range built.Deps {
			if module.Replace != nil {
				module = module.Replace
			}
			add(component{Name: module.Path, Version: module.Version, URL: "pkg:golang/" + module.Path + "@" + url.PathEscape(module.Version)})
		}
	}
	if p.name == panel.name {
		for _, embedded := range slices.Sorted(maps.Keys(bundles)) {
			if err := npmPackages(embedded, bundles[embedded], add); err != nil {
				return err
			}
		}
	}
	own := component{
		Type: "application", Name: p.name, Version: r.version, Licenses: []license{{"Apache-2.0"}},
		URL: "pkg:golang/github.com/eclitunnel/eclitunnel@" + url.PathEscape(r.version) + "#" + strings.TrimPrefix(p.source, "./"),
	}
	own.Ref = own.URL
	text, err := json.MarshalIndent(map[string]any{
		"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
		"metadata":   map[string]any{"timestamp": r.time.Format(time.RFC3339), "component": own},
		"components": slices.SortedFunc(maps.Values(parts), func(a, b component) int { return cmp.Compare(a.Ref, b.Ref) }),
	}, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(made, p.name+"_"+r.version+".cdx.json"), append(text, '\n'), 0o644)
}

// npmPackages adds the packages of a lock file that are in the embedded file, if there is
// that file: those that are not for development alone.
func npmPackages(embedded, lockFile string, add func(component)) error {
	if _, err := os.Stat(embedded); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	text, err := os.ReadFile(lockFile)
	if err != nil {
		return err
	}
	var lock struct {
		Packages map[string]struct {
			Version, Integrity, License, Resolved string
			Dev, Link                             bool
		} `json:"packages"`
	}
	if err := json.Unmarshal(text, &lock); err != nil {
		return fmt.Errorf("read %s: %w", lockFile, err)
	}
	for at, npm := range lock.Packages {
		_, name, found := cutLast(at, "node_modules/")
		if !found || npm.Dev || npm.Link || npm.Version == "" {
			continue
		}
		c := component{Name: name, Version: npm.Version, URL: "pkg:npm/" + strings.Replace(name, "@", "%40", 1) + "@" + npm.Version}
		if npm.License != "" {
			c.Licenses = []license{{npm.License}}
		}
		if sum, ok := strings.CutPrefix(npm.Integrity, "sha512-"); ok {
			if raw, err := base64.StdEncoding.DecodeString(sum); err == nil {
				c.Hashes = []hash{{"SHA-512", hex.EncodeToString(raw)}}
			}
		}
		add(c)
	}
	return nil
}

// cutLast is strings.Cut around the last instance.
func cutLast(text, separator string) (before, after string, found bool) {
	if i := strings.LastIndex(text, separator); i >= 0 {
		return text[:i], text[i+len(separator):], true
	}
	return text, "", false
}
