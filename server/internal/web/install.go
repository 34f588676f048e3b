package web

import (
	"bytes"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"strings"
	"time"
)

const (
	// installPath is that of the script that installs the agent. What the script downloads
	// is below it.
	installPath        = "/install"
	installWindowsPath = "/install.ps1"

	// downloadTimeout bounds a download, which may be slow: 6 MB at 80 kbit/s.
	downloadTimeout = 10 * time.Minute

	noAgents = "This panel has no agents to hand out. Who runs it can put the folder agents of a release beside the program " +
		"eclitunneld, or name one with --agents-dir; docs/install.md of EcliTunnel explains it."
	noSuchFile = "This panel hands out no file of this name. " + installPath + "/" + sumsFile + " lists those that it has."
)

// downloadTypes are the media types of what a release consists of.
var downloadTypes = map[string]string{
	".deb":  "application/vnd.debian.binary-package",
	".gz":   "application/gzip",
	".json": "application/json",
	".rpm":  "application/x-rpm",
	".zip":  "application/zip",
}

// panelPlaceholder stands for the panel's URL in the scripts.
const panelPlaceholder = "@PANEL@"

// panelURL is what the scripts may have in quotes as the panel's URL: nothing that a shell
// or PowerShell would run, whatever a request names as its host.
var panelURL = regexp.MustCompile(`^https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?$`)

// InstallOptions configures Install.
type InstallOptions struct {
	Agents Agents
	// URL is that of the panel, which the scripts download from and enroll with.
	URL *url.URL
	// HostOfRequest has scripts use the host that a request names instead, for a panel whose
	// URL leads to it on its own machine alone.
	HostOfRequest bool
}

// Install serves the scripts that install the agent, /install for POSIX shells and
// /install.ps1 for PowerShell, and below /install/ the files of a release. It passes
// requests for any other path to next. Where there are no agents it answers 404, with what
// to do in plain words.
func Install(options InstallOptions, next http.Handler) (http.Handler, error) {
	scripts := map[string][]byte{}
	for at, file := range map[string]string{installPath: "static/install.sh", installWindowsPath: "static/install.ps1"} {
		text, err := fs.ReadFile(static, file)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", file, err)
		}
		scripts[at] = text
	}
	i := installer{options}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, file := strings.CutPrefix(r.URL.Path, installPath+"/")
		script := scripts[r.URL.Path]
		switch {
		case script == nil && !file:
			next.ServeHTTP(w, r)
		case !reads(r):
			setSecurityHeaders(w.Header(), policy)
			methodNotAllowed(w)
		case file:
			i.file(w, r, name)
		default:
			i.script(w, r, script)
		}
	}), nil
}

type installer struct{ InstallOptions }

// script serves a script with the panel's URL in it.
func (i installer) script(w http.ResponseWriter, r *http.Request, script []byte) {
	if i.Agents.Check() != nil {
		refuse(w, noAgents)
		return
	}
	panel := strings.TrimSuffix(i.URL.String(), "/")
	if i.HostOfRequest {
		panel = i.URL.Scheme + "://" + r.Host
	}
	if !panelURL.MatchString(panel) {
		refuse(w, "The host of this request cannot be in a script. Who runs this panel sets its URL with --public-url.")
		return
	}
	text := bytes.ReplaceAll(script, []byte(panelPlaceholder), []byte(panel))
	// The name has no extension that decides on the media type: a browser shows the script.
	serve("install.txt", text, policy).ServeHTTP(w, r)
}

// file serves a file of the release.
func (i installer) file(w http.ResponseWriter, r *http.Request, name string) {
	sums, listed, err := i.Agents.sums()
	if err != nil {
		refuse(w, noAgents)
		return
	}
	sum := listed[name]
	switch {
	case name == sumsFile:
		serve(sumsFile+".txt", sums, policy).ServeHTTP(w, r)
		return
	case sum == "" && name != signatureFile:
		refuse(w, noSuchFile)
		return
	}
	file, err := i.Agents.open(name)
	if err != nil {
		refuse(w, noSuchFile)
		return
	}
	defer func() { _ = file.Close() }()
	header := w.Header()
	setSecurityHeaders(header, policy)
	header.Set("Cache-Control", revalidate)
	header.Set("Content-Type", "application/octet-stream")
	if mediaType, ok := downloadTypes[path.Ext(name)]; ok {
		header.Set("Content-Type", mediaType)
	}
	if sum != "" {
		header.Set("ETag", `"`+sum+`"`)
	}
	// A writer without deadlines, as tests have, has none to move.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(downloadTimeout))
	http.ServeContent(w, r, name, time.Time{}, file)
}

// refuse answers that there is no such file, in plain words.
func refuse(w http.ResponseWriter, why string) {
	setSecurityHeaders(w.Header(), policy)
	w.Header().Set("Cache-Control", "no-store")
	http.Error(w, why, http.StatusNotFound)
}
