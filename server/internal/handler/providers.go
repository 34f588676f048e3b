package handler

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/oapi-codegen/nullable"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/server"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
	"github.com/eclitunnel/eclitunnel/server/internal/oauth"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
	"github.com/eclitunnel/eclitunnel/server/internal/web"
)

// ListLoginProviders returns the ways to log in.
func (a *api) ListLoginProviders(context.Context, server.ListLoginProvidersRequestObject) (server.ListLoginProvidersResponseObject, error) {
	list := types.LoginProviders{
		LocalAccounts: !a.noLocal, Providers: []types.LoginProvider{}, EclipanelURL: nullable.NewNullNullable[string](),
	}
	if a.eclipanel != "" {
		list.EclipanelURL = nullable.NewNullableWithValue(a.eclipanel)
	}
	for _, provider := range a.providers.List() {
		list.Providers = append(list.Providers, types.LoginProvider{
			ID: provider.ID, Name: provider.Name, LoginURL: "/api/auth/providers/" + provider.ID + "/login",
		})
	}
	return server.ListLoginProviders200JSONResponse(list), nil
}

// beginProviderLogin sends a browser to a provider.
func (a *api) beginProviderLogin(w http.ResponseWriter, r *http.Request) {
	returnTo, err := pagePath(r.URL.Query().Get("returnTo"))
	if err != nil {
		problem.Write(w, r, err)
		return
	}
	location, cookies, err := a.providers.Begin(r.Context(), r.PathValue("id"), returnTo, r.Cookies())
	if err != nil {
		location = loginFailure(w, r, err)
	}
	setCookies(w, cookies)
	redirect(w, location)
}

// finishProviderLogin takes a provider's answer from a browser.
func (a *api) finishProviderLogin(w http.ResponseWriter, r *http.Request) {
	var login auth.Login
	location, cookies, err := a.providers.Finish(r.Context(), r.PathValue("id"), r.URL.Query(), r.Cookies(),
		func(ctx context.Context, identity db.Identity) (err error) {
			login, err = a.loginAs(ctx, identity)
			return err
		})
	if err != nil {
		location = loginFailure(w, r, err)
	} else {
		cookies = append(login.Cookies(), cookies...)
	}
	setCookies(w, cookies)
	redirect(w, location)
}

// loginAs logs in the user of an identity.
func (a *api) loginAs(ctx context.Context, identity db.Identity) (auth.Login, error) {
	user, err := a.db.SyncIdentity(ctx, identity)
	switch {
	case errors.Is(err, db.ErrEmailTaken):
		return auth.Login{}, &oauth.Failure{Reason: oauth.EmailTaken, Provider: identity.Provider}
	case err != nil:
		return auth.Login{}, err
	}
	login, err := a.auth.NewSession(ctx, user)
	if errors.Is(err, auth.ErrSuspended) {
		err = &oauth.Failure{Reason: oauth.Suspended, Provider: identity.Provider}
	}
	return login, err
}

// loginFailure logs why a login at a provider failed, if an operator should know, and
// returns the address of the page that explains it.
func loginFailure(w http.ResponseWriter, r *http.Request, err error) string {
	var failure *oauth.Failure
	reason := oauth.Failed
	if errors.As(err, &failure) {
		reason = failure.Reason
		if failure.Cause != nil {
			problem.Log(r, problem.Unavailable("", failure))
		}
	} else {
		switch problem.From(err).Status {
		case http.StatusTooManyRequests:
			reason = oauth.RateLimited
		case http.StatusServiceUnavailable:
			reason = oauth.Unavailable
		}
		problem.Log(r, err)
	}
	return web.LoginFailed(string(reason), w.Header().Get(problem.RequestIDHeader))
}

// redirect sends a browser on. The location is not http.Redirect's, which would clean it.
func redirect(w http.ResponseWriter, location string) {
	w.Header().Set("Location", location)
	w.Header().Set("Referrer-Policy", "no-referrer") // The URL has a code.
	w.WriteHeader(http.StatusFound)
}

// pagePath checks the path of a page, as which the contract has let it pass; an empty one is
// "/". A path of the API could begin the next login.
func pagePath(path string) (string, error) {
	if path == "" {
		return "/", nil
	}
	if strings.HasPrefix(path, "/api/") {
		return "", problem.Invalid(problem.Field("returnTo", "is not a page"))
	}
	return path, nil
}
