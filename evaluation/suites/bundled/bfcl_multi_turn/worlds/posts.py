"""Short public posts."""

from typing import Any

from evaluation.suites.bundled.bfcl_multi_turn.worlds.told import Told


class TwitterAPI:
    """One user, who may be logged in."""

    def __init__(self, state: Told) -> None:
        self.username: str = state["username"]
        self.password: str = state["password"]
        self.authenticated: bool = state["authenticated"]
        self.tweets: dict[int, Told] = {int(key): tweet for key, tweet in state["tweets"].items()}
        self.comments: dict[Any, list[Told]] = state["comments"]
        self.retweets: dict[str, list[int]] = state["retweets"]
        self.following_list: list[str] = state["following_list"]
        self.tweet_counter: int = state["tweet_counter"]

    def authenticate_twitter(self, username: str, password: str) -> Told:
        right = username == self.username and password == self.password
        self.authenticated = self.authenticated or right
        return {"authentication_status": right}

    def posting_get_login_status(self) -> Told:
        return {"login_status": bool(self.authenticated)}

    def post_tweet(self, content: str, tags: list[str] | None = None, mentions: list[str] | None = None) -> Told:
        if not self.authenticated:
            return _refusal("posting")
        tweet = {
            "id": self.tweet_counter,
            "username": self.username,
            "content": content,
            "tags": [] if tags is None else tags,
            "mentions": [] if mentions is None else mentions,
        }
        self.tweets[self.tweet_counter] = tweet
        self.tweet_counter += 1
        return tweet

    def retweet(self, tweet_id: int) -> Told:
        if not self.authenticated:
            return _refusal("retweeting")
        if tweet_id not in self.tweets:
            return _missing(tweet_id)
        own = self.retweets.setdefault(self.username, [])
        if tweet_id in own:
            return {"retweet_status": "Already retweeted"}
        own.append(tweet_id)
        return {"retweet_status": "Successfully retweeted"}

    def comment(self, tweet_id: int, comment_content: str) -> Told:
        if not self.authenticated:
            return _refusal("commenting")
        if tweet_id not in self.tweets:
            return _missing(tweet_id)
        self.comments.setdefault(tweet_id, []).append({"username": self.username, "content": comment_content})
        return {"comment_status": "Comment added successfully"}

    def mention(self, tweet_id: int, mentioned_usernames: list[str]) -> Told:
        if tweet_id not in self.tweets:
            return _missing(tweet_id)
        self.tweets[tweet_id]["mentions"].extend(mentioned_usernames)
        return {"mention_status": "Users mentioned successfully"}

    def follow_user(self, username_to_follow: str) -> Told:
        if not self.authenticated:
            return _refusal("following")
        new = username_to_follow not in self.following_list
        if new:
            self.following_list.append(username_to_follow)
        return {"follow_status": new}

    def list_all_following(self) -> Told:
        if not self.authenticated:
            return _refusal("listing following")
        return {"following_list": self.following_list}

    def unfollow_user(self, username_to_unfollow: str) -> Told:
        if not self.authenticated:
            return _refusal("unfollowing")
        known = username_to_unfollow in self.following_list
        if known:
            self.following_list.remove(username_to_unfollow)
        return {"unfollow_status": known}

    def get_tweet(self, tweet_id: int) -> Told:
        return self.tweets[tweet_id] if tweet_id in self.tweets else _missing(tweet_id)

    def get_user_tweets(self, username: str) -> list[Told]:
        return [tweet for tweet in self.tweets.values() if tweet["username"] == username]

    def search_tweets(self, keyword: str) -> list[Told]:
        wanted = keyword.lower()
        return [
            tweet
            for tweet in self.tweets.values()
            if wanted in tweet["content"].lower() or wanted in [tag.lower() for tag in tweet["tags"]]
        ]

    def get_tweet_comments(self, tweet_id: int) -> Told | list[Told]:
        return self.comments.get(tweet_id, []) if tweet_id in self.tweets else _missing(tweet_id)

    def get_user_stats(self, username: str) -> Told:
        return {
            "tweet_count": len(self.get_user_tweets(username)),
            "following_count": len(self.following_list) if username == self.username else 0,
            "retweet_count": len(self.retweets.get(username, [])),
        }


def _refusal(doing: str) -> Told:
    return {"error": f"User not authenticated. Please authenticate before {doing}."}


def _missing(tweet_id: int) -> Told:
    return {"error": f"Tweet with ID {tweet_id} not found."}
