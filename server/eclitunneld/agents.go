package main

import (
	"os"
	"path/filepath"
)

// packagedAgents is where packages of the panel have the agents.
const packagedAgents = "/usr/share/eclitunnel/agents"

// findAgents returns the directory with the agents that the panel hands out: the setting, if
// there is one, or else where archives and packages of a release have them. Empty is none.
func findAgents(setting string) string {
	if setting != "" {
		return setting
	}
	places := []string{packagedAgents}
	if program, err := os.Executable(); err == nil {
		places = []string{filepath.Join(filepath.Dir(program), "agents"), packagedAgents}
	}
	for _, place := range places {
		if info, err := os.Stat(place); err == nil && info.IsDir() {
			return place
		}
	}
	return ""
}
