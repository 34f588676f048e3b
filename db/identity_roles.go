package db

import (
	"context"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

// ForgetRolesExcept forgets what identity providers other than these have said of who is an admin: those that are not
// in use any more, or do not decide about roles. Whom one of them has made an admin stays one if another provider says
// so. If none says anything, an account with a password stays an admin as well, because it may have got the role here.
// A role that an admin has set stays. If no admin would be left, it forgets nothing and returns [ErrLastAdmin]. Most
// calls are one query.
func (d *DB) ForgetRolesExcept(ctx context.Context, providers []string) error {
	others := pq.Array(append([]string{}, providers...)) // A nil list would be NULL.
	var stale bool
	err := d.requests.GetContext(ctx, &stale,
		`SELECT EXISTS (SELECT 1 FROM identities WHERE admin IS NOT NULL AND provider <> ALL ($1))`, others)
	if err != nil || !stale {
		return wrap(err, "look for roles of former identity providers")
	}
	err = d.requests.tx(ctx, func(tx *sqlx.Tx) error {
		if err := lockQuotas(ctx, tx); err != nil { // The site's quota does not count for admins.
			return err
		}
		if err := lockAdmins(ctx, tx); err != nil {
			return err
		}
		var ids []int64
		err := tx.SelectContext(ctx, &ids, `SELECT DISTINCT user_id FROM identities WHERE admin AND provider <> ALL ($1)`, others)
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `UPDATE identities SET admin = NULL WHERE admin IS NOT NULL AND provider <> ALL ($1)`, others)
		if err != nil {
			return err
		}
		result, err := tx.ExecContext(ctx,
			`UPDATE users u SET role = 'user' WHERE u.id = ANY ($1) AND u.role = 'admin'
				AND NOT coalesce((SELECT bool_or(i.admin) FROM identities i WHERE i.user_id = u.id), u.password_hash <> '')`,
			pq.Array(ids))
		if err != nil {
			return err
		}
		if demoted, err := result.RowsAffected(); err != nil || demoted == 0 {
			return err
		}
		return needAdmin(ctx, tx)
	})
	return wrap(err, "forget roles of former identity providers")
}
