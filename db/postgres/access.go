//go:build unix

package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"os/user"
	"slices"
	"strconv"
	"strings"
)

const (
	hbaName   = "pg_hba.conf"
	identName = "pg_ident.conf"
	// replacedSuffix is that of a file that somebody else wrote and restrictLogins replaced.
	replacedSuffix = ".before"
	// userMap is the name of the map in pg_ident.conf.
	userMap = "eclitunnel"

	writtenByUs = "# Written by eclitunneld at each start.\n"
)

// restrictLogins has the cluster admit root and the account alone, by what the kernel says about the
// process that connects. Earlier versions admitted everybody who reached the socket, and what is
// restored may do so. Another program's pg_hba.conf or pg_ident.conf is kept under another name.
func (d *dataDir) restrictLogins(ctx context.Context, cluster *os.Root, logger *slog.Logger) error {
	hba, ident := writtenByUs, writtenByUs
	method := "peer map=" + userMap
	names, own := d.loginNames(ctx)
	if !own {
		// Postgres finds no name for this process, and could not admit it in any other way. The
		// directory of the socket admits the account and root alone.
		logger.WarnContext(ctx, "the database cannot tell users apart, because the panel's has no name on this machine: add it to /etc/passwd",
			slog.Int("uid", os.Geteuid()))
		method = "trust"
	}
	for _, databases := range []string{"all", "replication"} {
		hba += fmt.Sprintf("local %s all %s\n", databases, method)
	}
	for _, name := range names {
		for _, role := range []string{superuser, panelRole} {
			ident += fmt.Sprintf("%s %s %s\n", userMap, quoteName(name), role)
		}
	}
	return errors.Join(d.writeConfig(cluster, hbaName, hba), d.writeConfig(cluster, identName, ident))
}

// loginNames are the users whom the cluster admits. own reports whether that of this process is among them.
func (d *dataDir) loginNames(ctx context.Context) (names []string, own bool) {
	for _, uid := range []uint32{0, d.account.uid} {
		found := systemNames(ctx, uid)
		for _, name := range found {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
		own = own || len(found) > 0 && int(uid) == os.Geteuid()
	}
	return names, own
}

// systemNames returns the names of which one is what Postgres sees of a user. A static program knows the
// users in /etc/passwd, and Postgres those of directory services too, which may come first.
func systemNames(ctx context.Context, uid uint32) (names []string) {
	id := strconv.FormatUint(uint64(uid), 10)
	if found, err := user.LookupId(id); err == nil {
		names = append(names, found.Username)
	}
	output, err := exec.CommandContext(ctx, "id", "-un", id).Output()
	if name := strings.TrimSpace(string(output)); err == nil && name != "" && name != id {
		names = append(names, name)
	}
	return names
}

func quoteName(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// writeConfig brings a file of the cluster to this content.
func (d *dataDir) writeConfig(cluster *os.Root, name, content string) error {
	info, err := cluster.Lstat(name)
	if err == nil {
		var present []byte
		if info.Mode().IsRegular() {
			if present, err = cluster.ReadFile(name); err != nil {
				return err
			}
		}
		if string(present) == content {
			return nil
		}
		if !bytes.HasPrefix(present, []byte(writtenByUs)) {
			err = cluster.Rename(name, name+replacedSuffix)
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return replaceFile(cluster, name, []byte(content), 0o600, d.account)
}
