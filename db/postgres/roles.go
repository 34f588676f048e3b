//go:build unix

package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/lib/pq"
)

const (
	// superuser made the cluster, and prepares it at each start. Nothing else uses it.
	superuser = "eclitunnel"
	// panelRole owns the panel's database and is no superuser: SQL that somebody smuggles into a
	// statement of the panel neither reads files nor runs programs.
	panelRole = "eclitunneld"
)

// makePanelRole makes the panel's role, and gives it what other roles have in the database: earlier
// versions made everything as the superuser, and a restore keeps the owners of the server that the
// backup is of. Objects of pg_database_owner, such as the schema public, are the database owner's already.
// Objects with OIDs from 16384 on are not Postgres' own. A table's owner owns its indexes and the sequences of its
// columns too, and what belongs to an extension stays.
const makePanelRole = `
DO $$
DECLARE
    statement text;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '` + panelRole + `') THEN
        CREATE ROLE ` + panelRole + ` LOGIN;
    END IF;
    FOR statement IN
        WITH others AS (SELECT oid FROM pg_roles WHERE rolname NOT IN ('` + panelRole + `', 'pg_database_owner')),
        dependent AS (SELECT classid, objid FROM pg_depend
            WHERE deptype IN ('e', 'i') OR deptype = 'a' AND classid = 'pg_class'::regclass AND refclassid = 'pg_class'::regclass
                AND (SELECT relkind FROM pg_class WHERE oid = objid) = 'S')
        SELECT format('DATABASE %I', datname) FROM pg_database
            WHERE datname = current_database() AND datdba IN (SELECT oid FROM others)
        UNION ALL SELECT format('SCHEMA %I', nspname) FROM pg_namespace
            WHERE (oid >= 16384 AND nspname !~ '^pg_' OR nspname = 'public') AND nspowner IN (SELECT oid FROM others)
        UNION ALL SELECT format('%s %s', CASE relkind WHEN 'S' THEN 'SEQUENCE' WHEN 'v' THEN 'VIEW'
                WHEN 'm' THEN 'MATERIALIZED VIEW' ELSE 'TABLE' END, oid::regclass) FROM pg_class
            WHERE oid >= 16384 AND relkind IN ('r', 'p', 'v', 'm', 'S') AND relowner IN (SELECT oid FROM others)
                AND ('pg_class'::regclass::oid, oid) NOT IN (SELECT classid, objid FROM dependent)
        UNION ALL SELECT format('ROUTINE %s', oid::regprocedure) FROM pg_proc
            WHERE oid >= 16384 AND proowner IN (SELECT oid FROM others)
                AND ('pg_proc'::regclass::oid, oid) NOT IN (SELECT classid, objid FROM dependent)
        UNION ALL SELECT format('TYPE %s', oid::regtype) FROM pg_type
            WHERE oid >= 16384 AND typtype IN ('c', 'd', 'e', 'r') AND typowner IN (SELECT oid FROM others)
                AND ('pg_type'::regclass::oid, oid) NOT IN (SELECT classid, objid FROM dependent)
    LOOP
        EXECUTE format('ALTER %s OWNER TO ` + panelRole + `', statement);
    END LOOP;
END $$`

// makePanelRole does so as the superuser.
func (s *Server) makePanelRole(ctx context.Context, connector *pq.Connector) error {
	connections := sql.OpenDB(connector)
	_, err := connections.ExecContext(ctx, makePanelRole)
	if err = errors.Join(err, connections.Close()); err != nil {
		return fmt.Errorf("make the role %s: %w", panelRole, errors.Join(ctx.Err(), err))
	}
	return nil
}
