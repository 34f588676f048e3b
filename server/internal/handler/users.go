package handler

import (
	"context"
	"encoding/base64"
	"errors"
	"log/slog"
	"math"
	"strconv"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/server"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
	"github.com/eclitunnel/eclitunnel/server/internal/mail"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

var (
	errNoUser     = problem.NotFound("There is no such user.")
	errEmailTaken = problem.Conflict("This email has an account.")
)

// ListUsers lists the panel's users.
func (a *api) ListUsers(ctx context.Context, request server.ListUsersRequestObject) (server.ListUsersResponseObject, error) {
	params := request.Params
	wanted := valueOr(params.Limit, types.DefaultLimit)
	rows, err := a.users(ctx, params)
	if err != nil {
		return nil, err
	}
	sort := valueOr(params.Sort, types.UsersByEmail)
	parameters := given(nil, "search", params.Search)
	parameters = given(parameters, "q", params.Q)
	parameters = given(parameters, "role", params.Role)
	parameters = given(parameters, "suspended", params.Suspended)
	parameters = given(parameters, "sort", params.Sort)
	rows, link := cut(rows, wanted, "/api/users", func(user db.User) string { return userCursor(sort, user) }, parameters...)
	users := make([]types.User, 0, len(rows))
	for _, row := range rows {
		users = append(users, toUser(row))
	}
	return server.ListUsers200JSONResponse{Body: users, Headers: server.ListUsers200ResponseHeaders{Link: link}}, nil
}

// users reads a page of users, with one more that tells whether there is a next one.
func (a *api) users(ctx context.Context, params types.ListUsersParams) ([]db.User, error) {
	sort := valueOr(params.Sort, types.UsersByEmail)
	if sort == types.UsersByEmail && params.Q == nil && params.Role == nil && params.Suspended == nil {
		after, err := textPosition(params.After)
		if err != nil {
			return nil, err
		}
		_, page := page(params.Limit, after)
		return a.db.Users(ctx, textOf(params.Search), page)
	}
	listing := db.Listing{Sort: toSort(sort)}
	if sort == types.UsersByEmail {
		after, err := textPosition(params.After)
		if err != nil {
			return nil, err
		}
		if after != nil { // No other user has this email.
			listing.After = &db.Position{Key: *after, ID: strconv.FormatInt(math.MaxInt64, 10)}
		}
	} else {
		var err error
		if listing.After, err = sortPosition(sort, isNumber, params.After); err != nil {
			return nil, err
		}
	}
	_, page := page[db.Position](params.Limit, nil)
	listing.Limit = page.Limit
	filter := db.UserFilter{Beginning: textOf(params.Search), Search: textOf(params.Q), Role: textOf(params.Role), Suspended: params.Suspended}
	return a.db.FindUsers(ctx, filter, listing)
}

// userCursor encodes the position of a user in a list.
func userCursor(sort types.UserSort, user db.User) string {
	position := db.Position{Key: timeKey(user.CreatedAt), ID: strconv.FormatInt(user.ID, 10)}
	switch sort {
	case types.UsersByEmail:
		return base64.RawURLEncoding.EncodeToString([]byte(user.Email))
	case types.UsersDescendingByEmail:
		position.Key = user.Email
	}
	return sortCursor(sort, position)
}

// CreateUser creates an account without a password.
func (a *api) CreateUser(ctx context.Context, request server.CreateUserRequestObject) (server.CreateUserResponseObject, error) {
	user, err := a.db.CreateUser(ctx, string(request.Body.Email), "", string(valueOr(request.Body.Role, types.RoleUser)))
	if errors.Is(err, db.ErrConflict) {
		return nil, errEmailTaken
	}
	return server.CreateUser201JSONResponse(toUser(user)), err
}

// GetUser returns one user.
func (a *api) GetUser(ctx context.Context, request server.GetUserRequestObject) (server.GetUserResponseObject, error) {
	user, err := a.db.UserByID(ctx, request.ID)
	if err != nil {
		return nil, ifNotFound(err, errNoUser)
	}
	setTag(ctx, userTag(user))
	return server.GetUser200JSONResponse(toUser(user)), nil
}

// UpdateUser changes the fields that the request contains.
func (a *api) UpdateUser(ctx context.Context, request server.UpdateUserRequestObject) (server.UpdateUserResponseObject, error) {
	patch := db.UserPatch{Suspended: request.Body.Suspended}
	if email := request.Body.Email; email != nil {
		if !auth.FromContext(ctx).May("updateUser", auth.AccountEmail) {
			return nil, problem.Forbidden("An API key cannot change the email of an account.")
		}
		text := string(*email)
		patch.Email = &text
	}
	if role := request.Body.Role; role != nil {
		text := string(*role)
		patch.Role = &text
	}
	user, err := a.db.UpdateUser(ifMatch(ctx, userTag), request.ID, patch)
	switch {
	case errors.Is(err, db.ErrLastAdmin), errors.Is(err, db.ErrLastOwner):
		return nil, err
	case errors.Is(err, db.ErrConflict):
		return nil, errEmailTaken
	case err != nil:
		return nil, ifNotFound(err, errNoUser)
	}
	setTag(ctx, userTag(user))
	return server.UpdateUser200JSONResponse(toUser(user)), nil
}

// DeleteUser deletes an account.
func (a *api) DeleteUser(ctx context.Context, request server.DeleteUserRequestObject) (server.DeleteUserResponseObject, error) {
	var devices db.DevicesOf
	what, owner := request.Params.Devices, request.Params.NewOwnerID
	moves := what != nil && *what == types.DevicesMove
	switch {
	case moves && owner == nil:
		return nil, problem.Invalid(problem.Field("newOwnerId", "is required with devices=move"))
	case !moves && owner != nil:
		return nil, problem.Invalid(problem.Field("newOwnerId", "requires devices=move"))
	}
	devices.Delete, devices.MoveTo = what != nil && !moves, owner
	err := a.db.DeleteUser(ifMatch(ctx, userTag), request.ID, devices)
	switch {
	case errors.Is(err, db.ErrNoOwner):
		return nil, problem.Invalid(problem.Field("newOwnerId", "is not another user of this panel"))
	case err != nil:
		return nil, ifNotFound(err, errNoUser)
	}
	return server.DeleteUser200JSONResponse(types.Success{Success: true}), nil
}

// CreatePasswordLink makes a link with which a user sets a password, and mails it if it can.
func (a *api) CreatePasswordLink(ctx context.Context, request server.CreatePasswordLinkRequestObject) (server.CreatePasswordLinkResponseObject, error) {
	link, err := a.auth.NewPasswordLink(ctx, request.ID)
	switch {
	case errors.Is(err, db.ErrConflict):
		return nil, problem.Conflict("The user is suspended; restore the account first.")
	case err != nil:
		return nil, ifNotFound(err, errNoUser)
	}
	answer := types.PasswordLink{ExpiresAt: link.ExpiresAt}
	if a.mailer != nil {
		err := a.mailer.PasswordLink(ctx, link.Email, link.URL.String(), link.ExpiresAt)
		if err == nil {
			answer.MailedTo = &link.Email
			return server.CreatePasswordLink200JSONResponse(answer), nil
		}
		a.logger.WarnContext(ctx, "mail not sent; the link is shown instead", slog.Int64("userId", request.ID), slog.Any("error", err))
		reason := mail.Reason(err)
		answer.MailFailure = &reason
	}
	text := link.URL.String()
	answer.URL = &text
	return server.CreatePasswordLink200JSONResponse(answer), nil
}

// SetPassword sets a password by a link.
func (a *api) SetPassword(ctx context.Context, request server.SetPasswordRequestObject) (server.SetPasswordResponseObject, error) {
	if err := a.auth.SetPassword(ctx, request.Body.Token, request.Body.Password); err != nil {
		return nil, err
	}
	return server.SetPassword204Response{}, nil
}
