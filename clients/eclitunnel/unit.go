package main

import (
	"path/filepath"
	"slices"
	"strings"

	"github.com/eclitunnel/eclitunnel/deploy/systemd"
)

// unit is what a unit of systemd depends on.
type unit struct {
	program string
	args    []string
	config  string // The enrollment, an absolute path.
	user    string // As whom a system's service runs; "" is root.
	perUser bool   // A service of the user who installs it.

	autoUpdate bool // It replaces its program.
}

// keptInPerUser are the keys of [Service] that the manager of a user's services accepts:
// what else the unit restricts needs root.
var keptInPerUser = []string{
	"ExecStart", "Environment", "EnvironmentFile", "StandardOutput", "Restart", "RestartSec", "RestartPreventExitStatus",
	"LimitNOFILE", "LimitCORE", "NoNewPrivileges", "UMask",
}

// text returns the unit. It is that of the packages with another program, user and place
// of the enrollment.
func (u unit) text() string {
	var out strings.Builder
	out.WriteString("# Written by: eclitunnel service install\n")
	_, base, _ := strings.Cut(systemd.AgentUnit, "[Unit]")
	section := "Unit"
	for line := range strings.Lines("[Unit]" + base) {
		key, value, isSetting := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		switch {
		case strings.HasPrefix(line, "#"):
			continue // About the packages' unit.
		case strings.HasPrefix(line, "["):
			section = strings.Trim(line, "[]\n")
		case isSetting && section == "Service":
			line = u.setting(key, value)
		case isSetting && u.perUser:
			line = perUserSetting(key, line)
		}
		out.WriteString(line)
	}
	return out.String()
}

// perUserSetting returns a line of another section for the manager of a user's services,
// which knows none of the system's targets.
func perUserSetting(key, line string) string {
	switch key {
	case "WantedBy":
		return "WantedBy=default.target\n"
	case "Wants", "After":
		return ""
	default:
		return line
	}
}

// setting returns a line of the section Service.
func (u unit) setting(key, value string) string {
	if u.perUser && !slices.Contains(keptInPerUser, key) {
		return ""
	}
	switch key {
	case "ExecStart":
		line := "ExecStart=" + quoteUnit(append([]string{u.program}, u.args...)...) + "\n"
		if u.autoUpdate {
			line += "Environment=ECLITUNNEL_AUTO_UPDATE=true\n"
		}
		return line
	case "Environment":
		var kept []string
		for field := range strings.FieldsSeq(value) {
			if !strings.HasPrefix(field, "ECLITUNNEL_CONFIG=") {
				kept = append(kept, field)
			}
		}
		value = strings.Join(kept, " ")
	case "EnvironmentFile":
		if u.perUser {
			value = "-%E/eclitunnel/eclitunnel.env"
		}
	case "User":
		if u.user == "" {
			return ""
		}
		value = u.user
	case "Group", "StateDirectory":
		return "" // The user's own, and a directory that is there.
	case "StateDirectoryMode":
		writes := []string{filepath.Dir(u.config)}
		if u.autoUpdate {
			writes = append(writes, filepath.Dir(u.program))
		}
		return "ReadWritePaths=" + quoteUnit(writes...) + "\n"
	case "ProtectHome":
		value = "read-only" // The enrollment may lie in a home.
	case "CapabilityBoundingSet":
		if u.user == "" {
			// It makes its socket in a directory that it gives to the person who enrolled, and a
			// tunnel server may have ports below 1024.
			return "CapabilityBoundingSet=CAP_CHOWN CAP_FOWNER CAP_DAC_OVERRIDE CAP_NET_BIND_SERVICE\n" +
				"RuntimeDirectory=eclitunnel\nRuntimeDirectoryMode=0755\n"
		}
	case "PrivateUsers":
		if u.user == "" {
			return ""
		}
	case "SystemCallFilter":
		if u.user == "" && strings.HasPrefix(value, "~") {
			value = "~@resources @mount @swap @reboot @module @raw-io @clock"
		}
	}
	return key + "=" + value + "\n"
}

// quoteUnit returns words as a setting of systemd has them (systemd.syntax(7)). They are
// taken literally: neither variables nor specifiers are replaced.
func quoteUnit(words ...string) string {
	escape := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "%", "%%", "$", "$$", "\n", `\n`)
	quoted := make([]string, len(words))
	for i, word := range words {
		quoted[i] = word
		if escaped := escape.Replace(word); escaped != word || word == "" || strings.ContainsAny(word, " \t';#") {
			quoted[i] = `"` + escaped + `"`
		}
	}
	return strings.Join(quoted, " ")
}
