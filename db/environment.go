package db

import (
	"os"
	"strings"
)

// ignoreEnvironment removes the variables of libpq from the environment of this process, because
// lib/pq lets them and service files redirect or break a connection, each time one is made: a shell
// prepared for psql would send the panel to another database than the one its settings name.
//
// Three stay, which can only fill a gap: PGPASSWORD and PGPASSFILE, used where a URL has no
// password, and PGSERVICEFILE, used where a URL names a service.
func ignoreEnvironment() {
	for _, variable := range os.Environ() {
		name, _, _ := strings.Cut(variable, "=")
		switch {
		case name == "PGPASSWORD", name == "PGPASSFILE", name == "PGSERVICEFILE":
		case strings.HasPrefix(name, "PG"), strings.HasPrefix(name, "SSLPG"):
			_ = os.Unsetenv(name) // Its only error is a malformed name.
		}
	}
}
