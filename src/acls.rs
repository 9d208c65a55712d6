//! The ACL names that a node is created with: options, what is inherited, and nodes that have others.

use hasp_client::{AclNames, Client, Name, OpenOptions, Opened, Stat};

use crate::context::ConnectArgs;
use crate::exit::Failure;

/// ACL names for what is created.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct AclArgs {
    /// Who may read what is created: a file of the namespace's acl directory [default: the directory's]
    #[arg(long, value_name = "ACL")]
    read_acl: Option<String>,

    /// Who may write and lock it
    #[arg(long, value_name = "ACL")]
    write_acl: Option<String>,

    /// Who may change its ACL names
    #[arg(long, value_name = "ACL")]
    change_acl: Option<String>,
}

impl AclArgs {
    /// Adds what was given to how a node is created. What was not given is as its directory has it just before.
    ///
    /// # Errors
    /// If the directory has to be looked at and cannot be.
    pub async fn apply(
        &self,
        connect: &ConnectArgs,
        client: &Client,
        name: &Name,
        options: OpenOptions,
    ) -> Result<OpenOptions, Failure> {
        let inherited = match (self, name.parent()) {
            (Self { read_acl: None, write_acl: None, change_acl: None }, _) => return Ok(options),
            (Self { read_acl: Some(_), write_acl: Some(_), change_acl: Some(_) }, _) | (_, None) => {
                AclNames::default()
            }
            (_, Some(directory)) => {
                connect.call(client.open(&directory, OpenOptions::read())).await?.stat.acls
            }
        };
        Ok(options.acls(self.over(inherited)))
    }

    /// Refuses a node that existed before and has other names than were given: whoever gave them would take
    /// it for guarded as they say.
    ///
    /// # Errors
    /// `AlreadyExists`.
    pub fn check(&self, name: &Name, opened: &Opened) -> Result<(), Failure> {
        if opened.created || self.agree_with(&opened.stat) {
            return Ok(());
        }
        let AclNames { read, write, change } = &opened.stat.acls;
        Err(Failure::Refused(format!(
            "AlreadyExists: {name} has other ACLs (read {read}, write {write}, change {change}); \
             hasp acl changes them"
        )))
    }

    fn agree_with(&self, stat: &Stat) -> bool {
        stat.acls == self.over(stat.acls.clone())
    }

    fn over(&self, names: AclNames) -> AclNames {
        let Self { read_acl, write_acl, change_acl } = self.clone();
        AclNames {
            read: read_acl.unwrap_or(names.read),
            write: write_acl.unwrap_or(names.write),
            change: change_acl.unwrap_or(names.change),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_goes_over_what_is_inherited() {
        let given = AclArgs { write_acl: Some("ops".into()), ..AclArgs::default() };

        let names = given.over(AclNames::default());

        let expected = AclNames { read: "everyone".into(), write: "ops".into(), change: "admin".into() };
        assert_eq!(names, expected);
    }
}
